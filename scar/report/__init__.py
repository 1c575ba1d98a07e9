"""Tables and figures as pure functions of run records: nothing here trains, prints or writes a file."""
