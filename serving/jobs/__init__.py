"""What holds for every job, whoever asks: admission, the statuses' transitions, timelines as stored."""
