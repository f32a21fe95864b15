"""A study as it runs: its protocol, who trains next, what updates cost, tables, display, and a forecast of it all. Free of Ray."""
