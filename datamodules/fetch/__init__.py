"""`mmib fetch-data`: the released data sets, from where their authors put them, in the layout that readers expect."""
