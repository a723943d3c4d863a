# The door: makes the virtual environment and calls the tasks in tasks.py.
# A distribution's Python before one that pyenv has compiled: it is optimized with profiles, and the tests take a twelfth
# less. It must be new enough and have pip, otherwise the first Python of the path is used.
USABLE := import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(or $(shell /usr/bin/python3 -c '$(USABLE)' 2>/dev/null && echo /usr/bin/python3),python3)
UV := $(or $(shell command -v uv),.tools/bin/uv)
export UV_PYTHON_DOWNLOADS := never
# Half of what Nautobot takes to start is the compilation of its modules; each process would do it again.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready

.PHONY: demo test start lint docs bench-cleanup bench-health bench-runs bench-saver bench-pages soak build matrix clean distclean
demo test start lint docs bench-cleanup bench-health bench-runs bench-saver bench-pages soak build matrix: $(READY)
	@exec .venv/bin/invoke $@ $(ARGS)

$(READY): requirements.txt pyproject.toml | $(UV)
	@echo "Making the virtual environment: a minute at the first time ..."
	$(UV) venv --quiet --clear --python $(PYTHON) .venv
	$(UV) pip install --quiet --python .venv/bin/python --requirements requirements.txt
	$(UV) pip install --quiet --python .venv/bin/python --no-deps --editable .
	@touch $@

.tools/bin/uv:
	$(PYTHON) -m pip install --quiet --target .tools uv

clean:
	@test ! -d .venv || .venv/bin/invoke clean

distclean: clean
	rm -rf .venv .tools ai_ops/docs
