"""Keys: root key → key-encryption keys, versioned, one line per purpose → one data key per object (made by the core).

Owns the keystore file and the providers of the root. Does not own what is sealed with the keys, nor the rewrapping of
headers (`shieldd.respond`). No key leaves as text: not in an error, a log or a repr.
"""

from shieldd.keys.contract import KeyLedger, Provider, ProviderState
from shieldd.keys.keystore import Keystore, KeyVersion
from shieldd.keys.local import LocalProvider
from shieldd.keys.ring import Due, KeyInfo, KeyRing
from shieldd.keys.secrets import Secret
from shieldd.model.key import KeyRecord, KeyState

__all__ = [
    "Due",
    "KeyInfo",
    "KeyLedger",
    "KeyRecord",
    "KeyRing",
    "KeyState",
    "KeyVersion",
    "Keystore",
    "LocalProvider",
    "Provider",
    "ProviderState",
    "Secret",
]
