# The two commands of the README, and what they are made of. Each is one script in ci/.
.PHONY: demo test check
demo test check:
	@ci/$@
