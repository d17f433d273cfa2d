"""A segmenter that draws discs, and a runner without threads: what tests of the window share."""

from contextlib import suppress

import numpy as np

from napari_samic.core.types import Candidates


class Discs:
    """A disc at each positive point, none at negative ones; the box is filled."""

    def __init__(self, name="discs", radius=5, scores=(0.6, 0.9, 0.91, 0.912, 0.912)):
        self.name, self.radius, self.scores = name, radius, scores
        self.asked = []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        return [self.answer(image.shape[:2], prompts, multimask) for prompts in objects]

    def answer(self, shape, prompts, multimask):
        if not multimask:
            self.asked.append(prompts)
        count = max(1, len(prompts.points_rc))
        score = self.scores[min(count, len(self.scores)) - 1]
        radii = (self.radius - 2, self.radius, self.radius + 2) if multimask else (self.radius,)
        masks = np.stack([self._mask(shape, prompts, r) for r in radii])
        scores = np.array([score - 0.1 * i for i in range(len(radii))], np.float32)
        return Candidates(masks, scores, np.zeros((len(radii), 4, 4), np.float32))

    def _mask(self, shape, prompts, radius):
        rows, columns = np.indices(shape)
        mask = np.zeros(shape, bool)
        if prompts.box_rc is not None:
            r0, c0, r1, c1 = prompts.box_rc
            mask |= (rows >= r0) & (rows <= r1) & (columns >= c0) & (columns <= c1)
        for (row, column), sign in zip(prompts.points_rc, prompts.is_foreground, strict=True):
            mask[np.hypot(rows - row, columns - column) <= radius] = sign
        return mask

    def segment(self, image, objects, *, settings=None):
        raise NotImplementedError

    def embedding(self, image):
        small = image[::4, ::4].astype(np.float32)
        return np.moveaxis(small, -1, 0)


class Inline:
    """Runs jobs in the caller's thread, when told to: `step()` one of them, or `settle()` all."""

    def __init__(self):
        self.jobs = []
        self.errors = []

    def start(self, job, calls=None, *, title=""):
        handle = _Handle(self, job, calls, title)
        self.jobs.append(handle)
        return handle

    def settle(self):
        while self.jobs:
            self.jobs[0].advance()

    def close(self):
        for handle in list(self.jobs):
            handle.calls = None
            handle.finish()


class _Handle:
    def __init__(self, runner, job, calls, title):
        self.runner, self.job, self.calls, self.title = runner, job, calls, title
        self.cancelled = False

    def cancel(self):
        self.cancelled = True

    def advance(self):
        if self.cancelled:
            self.finish()
            return
        try:
            step = next(self.job)
        except StopIteration as stop:
            if self.calls and self.calls.on_done:
                self.calls.on_done(stop.value)
            self.finish()
        except Exception as error:
            self.runner.errors.append(error)
            if self.calls and self.calls.on_error:
                self.calls.on_error(error)
            self.finish()
        else:
            if self.calls and self.calls.on_step:
                self.calls.on_step(step)

    def finish(self):
        self.job.close()
        with suppress(ValueError):
            self.runner.jobs.remove(self)
        if self.calls and self.calls.on_end:
            self.calls.on_end()
