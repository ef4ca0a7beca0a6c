"""What the HTTP API reads and answers: requests, answers, forms, the OpenAPI document."""
