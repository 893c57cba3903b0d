"""Anthropic's Messages in front of chat completions: requests, events and objects are translated here, without I/O."""
