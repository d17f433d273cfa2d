"""Settings forms and the small widgets of which the steps are made."""
