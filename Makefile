# The commands of the README. Each is one script in ci/; ARGS is for pytest: make test-quick ARGS='-k bundle'.
.PHONY: demo test test-quick test-quantization check
demo check:
	@ci/$@
test test-quick test-quantization:
	@ci/$@ $(ARGS)
