"""SDKs against providers: who asks, who answers, and what must come of it."""
