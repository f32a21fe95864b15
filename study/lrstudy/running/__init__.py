"""A study while it runs: its protocol, who trains next, what updates cost, its tables and its display. Free of Ray."""
