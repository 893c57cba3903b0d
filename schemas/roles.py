"""Roles of people who administrate, and what each may do. Data; enforced in the portal, at each handler."""

from enum import StrEnum


class Role(StrEnum):
    """A role. Platform roles stand over all organizations; `member` may look at its own team and ask for things."""

    PLATFORM_ADMIN = "platform_admin"
    ORGANIZATION_ADMIN = "organization_admin"
    TEAM_ADMIN = "team_admin"
    MEMBER = "member"
    AUDITOR = "auditor"
    FINANCE = "finance"
