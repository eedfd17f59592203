"""What the server tells its operators: the error log and the access log."""
