"""What a study will do: arms, plan, checks against the data, lock, forecast. Nothing is trained here."""
