"""Inference engines that the cluster starts itself, such as vLLM and SGLang: processes, guardians, calls."""
