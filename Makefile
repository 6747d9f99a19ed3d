# The commands of the README. Each is one script in ci/; ARGS is for pytest: make test-quick ARGS='-k bundle'.
.PHONY: demo check test test-quick test-clients test-compatibility test-death test-documents test-envoy test-guides test-quantization
demo check:
	@ci/$@
test test-quick test-clients test-compatibility test-death test-documents test-envoy test-guides test-quantization:
	@ci/$@ $(ARGS)
