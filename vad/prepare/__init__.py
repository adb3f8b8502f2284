"""Lists, ground truth and the audit: what is made of a data set's table before anything is trained."""
