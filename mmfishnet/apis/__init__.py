# Copyright (c) mmfishnet authors. All rights reserved.
from .predict import Predictor, predict

__all__ = ['Predictor', 'predict']
