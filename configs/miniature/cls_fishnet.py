_base_ = './_base_/cls.py'
