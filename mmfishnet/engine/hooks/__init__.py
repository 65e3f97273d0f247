# Copyright (c) mmfishnet authors. All rights reserved.
from .channels_last import ChannelsLastHook, use_channels_last
from .clip_grad import ClipGradUntilHook
from .compile import CompileBackboneHook, compile_backbone, why_not_compile
from .norm_check import NormCheckHook

__all__ = [
    'ChannelsLastHook', 'ClipGradUntilHook', 'CompileBackboneHook',
    'NormCheckHook', 'compile_backbone', 'use_channels_last',
    'why_not_compile'
]
