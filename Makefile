# Creates the virtual environment and calls the tasks in tasks.py.
# Prefer a distribution's Python to one that pyenv has compiled: it is optimized with profiles, and the tests take a
# twelfth less time. If it is too old or has no pip, use the first Python of the path.
USABLE := import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(or $(shell /usr/bin/python3 -c '$(USABLE)' 2>/dev/null && echo /usr/bin/python3),python3)
UV := $(or $(shell command -v uv),.tools/bin/uv)
export UV_PYTHON_DOWNLOADS := never
# Compiling Nautobot's modules takes half of its start. Without compiled files each process would repeat it.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready

.PHONY: demo test start lint docs bench-cleanup bench-health bench-runs bench-saver bench-pages soak build matrix clean distclean
demo test start lint docs bench-cleanup bench-health bench-runs bench-saver bench-pages soak build matrix: $(READY)
	@exec .venv/bin/invoke $@ $(ARGS)

$(READY): requirements.txt pyproject.toml | $(UV)
	@echo "Creating the virtual environment: this takes a minute at the first time ..."
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
