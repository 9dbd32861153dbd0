"""`mmib fetch-data`: downloads data sets from their authors' sites into the layout that readers expect."""
