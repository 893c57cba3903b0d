"""What runs beside Sluice in production: dashboards, alert rules."""
