"""The job: it reads a run's plan and trains. torch lives here and in `models`."""
