"""The four tiers: what each holds, how it is asked, how it is filled."""
