"""One registry over several processes: snapshots in a folder, read and added up by whoever is scraped."""
