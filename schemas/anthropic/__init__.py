"""Bodies as Anthropic's Messages API speaks them. What we don't know is ignored: new kinds of blocks and events break nothing."""
