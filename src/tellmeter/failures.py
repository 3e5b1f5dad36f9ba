"""temporary"""
def error_category(*a): return "unknown"
def error_class(*a): return "X"
