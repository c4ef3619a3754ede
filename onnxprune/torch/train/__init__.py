"""Retraining under masks: the training loop and its pieces.

losses · schedules · regularise · dropout · batch_norm · ema · local · clip · amp · pretail · teacher
"""
