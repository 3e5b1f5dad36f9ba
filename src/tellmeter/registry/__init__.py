"""COUNT: named counters, gauges and histograms; the LLM family; label rules; text formats."""
