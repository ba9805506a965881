"""Many runs on one page: found, grouped into methods, compared in pairs, drawn and written."""
