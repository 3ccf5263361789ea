"""Beam search equals a plain one over dictionaries and `transformers`' own, and stays inside the catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding.beam import Ranking, SearchOptions, beam_search
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError, UsageError

from .conftest import EOS, START, DictionaryTrie, plain_beam_search, random_ids, random_prompts, tiny_t5
