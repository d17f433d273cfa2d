"""Every error that a user can meet.

Each says what, where, what was found and what to do, in one line. Each also inherits the built-in
that fits, so that scripts may catch either. `exit_code` is what the shell returns.
"""


class SamicError(Exception):
    """Parent of all errors of this package: the user can do something about it."""

    exit_code = 2


class InputError(SamicError, ValueError):
    """An image, mask or folder that can't be used as given."""


class ImageReadError(InputError):
    """An image file that can't be read."""


class PromptError(SamicError, ValueError):
    """Points or boxes that make no sense for their image."""


class SettingsError(SamicError, ValueError):
    """A setting outside its bounds, or an unknown one."""


class FormatError(SamicError, ValueError):
    """A file of ours (prompts, prompter, weights) of another kind or version, or damaged."""


class OutputError(SamicError, OSError):
    """A result that can't be written, or that would overwrite another."""

    exit_code = 3


class StaleError(OutputError):
    """Results are in the way that were made of something else; the message opens with their folder.

    `why` says it without the folder and without what to do in the shell.
    """

    def __init__(self, folder: object, why: str) -> None:
        self.why = why
        advice = "Choose another folder, or overwrite them (--overwrite)."
        super().__init__(f"{folder}: holds {why}. {advice}")


class ModelError(SamicError, LookupError):
    """An unknown model, or one that this machine can't build."""


class WeightsError(SamicError, OSError):
    """Weights that are absent, can't be fetched or have another checksum."""

    exit_code = 3


class TrainingError(SamicError, RuntimeError):
    """Training that can't start, or that ended without a usable network."""


class PluginError(SamicError, TypeError):
    """A third party's class that lacks methods of the protocol it was registered for."""
