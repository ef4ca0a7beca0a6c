"""The Kubernetes API: requests, errors, informers, leader election."""
