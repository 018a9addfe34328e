"""Users of a directory: OpenLDAP, Active Directory, FreeIPA and the like."""

from auth.ldap.backend import LdapBackend
from auth.ldap.settings import LdapSettings

__all__ = ["LdapBackend", "LdapSettings"]
