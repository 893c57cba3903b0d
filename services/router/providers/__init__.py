"""Who answers: one file a kind of provider, behind a base of two methods."""
