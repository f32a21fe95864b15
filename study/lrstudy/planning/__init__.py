"""What a study will do: arms, plan, checks against the data, lock. Nothing is trained here."""
