"""What the steps share: project, queue of requests, preferences, jobs."""
