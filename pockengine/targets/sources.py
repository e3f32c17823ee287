"""Sources that several targets' numbers share."""

from __future__ import annotations

POET = "POET (Patil et al., ICML 2022), device table of the released code"
TTE = "On-device training under 256 KB (Lin et al., NeurIPS 2022), section 4.1"
ABI_64 = "the architecture's 64-bit ABI"
ABI_32 = "the architecture's 32-bit ABI"
CACHE_LINE = "the cache line, 64 bytes, which the widest vector load also wants"
DOUBLE_WORD = "AAPCS32: no type is aligned more strictly than 8 bytes"
SD_CARD = POET + "; an SD card"
