# The commands of the README. Each is one script in ci/.
.PHONY: demo test test-quantization test-compatibility check
demo test test-quantization test-compatibility check:
	@ci/$@
