"""Bodies as OpenAI's SDKs speak them. What we don't know is kept and reaches the provider as it came."""
