"""Bodies as AWS Bedrock's runtime API has them (2023-09-30)."""
