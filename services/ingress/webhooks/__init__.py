"""A caller is TOLD: events are delivered to the endpoints of teams, and tried again."""
