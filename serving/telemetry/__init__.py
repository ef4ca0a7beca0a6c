"""What a farm tells of itself: metrics, histograms of its processes, log set-up."""
