"""Webhooks as they leave the house: signed (`signing`), only to where they may go (`targets`, `lookup`), one try (`courier`)."""
