"""Identity tokens (`tokens`) of OIDC issuers, whose public keys are fetched and kept (`jwks`) and read (`keys`)."""
