"""Owns the completions for bash, zsh and fish, made from the one grammar.

Must not know the grammar's lines by itself, nor any shell's history.
"""

from collections.abc import Iterable, Sequence
from itertools import product

from orionagent.usage import LEVELS, OPTION_SUMMARIES, SUMMARIES, Line, commands, grammar_lines, subcommands

# The table of `orion script list` as it is without a terminal: a header, then a name first in each line.
NAMES = "orion script list 2>/dev/null | awk 'NR > 1 { print $1 }'"
FOLDERS = ("--cwd", "--data")
NEW_NAMES = ("add",)


def completion(shell: str) -> str:
    """Return the script that teaches `shell` (bash, zsh or fish) to complete `orion`."""
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell]()


def value_options() -> list[str]:
    """Return the options that want a value of which no list exists."""
    known = {*FOLDERS, "--user", "--level"}
    names = [name for line in grammar_lines() for name, value in line.options if value and name not in known]
    return list(dict.fromkeys(names))


def takes_known_script(line: Line, word: str) -> bool:
    """Tell whether the line's <name> is that of a script which exists."""
    return "<name>" in line.arguments and word not in NEW_NAMES


def choices(line: Line, word: str) -> tuple[list[str], bool]:
    """Return what may follow the command words of a line, and whether names of scripts may too."""
    found = [name for name, _ in line.options]
    if "<level>" in line.arguments:
        found = [*LEVELS, *found]
    return found, takes_known_script(line, word)


def branches() -> Iterable[tuple[tuple[str, ...], list[str], bool]]:
    """Yield (command words, choices, names of scripts too) for every command, several lines of it as one."""
    found: dict[tuple[str, ...], tuple[list[str], bool]] = {}
    for line in grammar_lines():
        for path in product(*line.words):
            words, names = choices(line, path[-1])
            before, already = found.get(path, ([], False))
            found[path] = (list(dict.fromkeys([*before, *words])), names or already)
    return [(path, words, names) for path, (words, names) in found.items()]


def modes(first: str) -> list[tuple[str, list[str]]]:
    """Return the options that tell the lines of a command apart, each with all that may stand beside it."""
    lines = [line for line in grammar_lines() if line.fits([first])]
    return [(line.mode, [name for name, _ in line.options]) for line in lines if line.mode]


def bash() -> str:
    """Return bash's completions."""
    cases = []
    for first in commands():
        seconds = subcommands(first)
        mine = [branch for branch in branches() if branch[0][0] == first]
        if not seconds:
            cases.append(f"        {first}) words={_bash_words(*mine[0][1:])}")
            for mode, options in modes(first):
                chosen = f'[[ " ${{COMP_WORDS[*]}} " == *" {mode} "* ]]'
                cases.append(f"            {chosen} && words={_bash_words(options, False)}")
            cases[-1] += " ;;"
            continue
        cases.append(f"        {first})")
        cases.append(f'            if ((COMP_CWORD == 2)); then words="{" ".join(seconds)}"; else')
        cases.append('            case "${COMP_WORDS[2]}" in')
        cases.extend(f"                {branch[0][1]}) words={_bash_words(*branch[1:])} ;;" for branch in mine)
        cases.append("            esac; fi ;;")
    return f"""\
# bash completion for orion; load it with: source <(orion completion bash)
_orion_scripts() {{ {NAMES}; }}
_orion() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} words=
    COMPREPLY=()
    # bash takes "--level=warn" for three words.
    [[ $previous == "=" ]] && previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    [[ $current == "=" ]] && current=
    case "$previous" in
        {"|".join(FOLDERS)}) compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
        --user) mapfile -t COMPREPLY < <(compgen -u -- "$current"); return ;;
        --level) mapfile -t COMPREPLY < <(compgen -W "{" ".join(LEVELS)}" -- "$current"); return ;;
        {"|".join(value_options())}) return ;;
    esac
    if ((COMP_CWORD == 1)); then words="{" ".join(commands())}"; else
    case "${{COMP_WORDS[1]}}" in
{chr(10).join(cases)}
    esac; fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _orion orion
"""


def _bash_words(words: Iterable[str], names: bool) -> str:
    return '"' + " ".join([*words, *(["$(_orion_scripts)"] if names else [])]) + '"'


def zsh() -> str:
    """Return zsh's completions; the file may be sourced or stand in $fpath as _orion."""
    cases = []
    for first in commands():
        seconds = subcommands(first)
        mine = [branch for branch in branches() if branch[0][0] == first]
        if not seconds:
            cases.append(f"        ({first}) {_zsh_words(*mine[0][1:])}")
            for mode, options in modes(first):
                cases.append(f'            [[ " $words " == *" {mode} "* ]] && {_zsh_words(options, False)}')
            cases[-1] += " ;;"
            continue
        described = _zsh_list((second, SUMMARIES.get(f"{first} {second}", "")) for second in seconds)
        cases.append(f"        ({first}) if (( CURRENT == 3 )); then choices=({described}); else")
        cases.append("            case $words[3] in")
        cases.extend(f"                ({branch[0][1]}) {_zsh_words(*branch[1:])} ;;" for branch in mine)
        cases.append("            esac; fi ;;")
    first_words = _zsh_list((name, SUMMARIES[name]) for name in commands())
    return f"""\
#compdef orion
# zsh completion for orion; load it with: source <(orion completion zsh)
_orion() {{
    local -a choices
    local option=$words[CURRENT-1]
    # Behind the sign of "--level=warn" it is as if a word of its own began.
    [[ $words[CURRENT] == --*=* ]] && option=${{words[CURRENT]%%=*}} && compset -P '*='
    case $option in
        ({"|".join(FOLDERS)}) _files -/; return ;;
        (--user) _users; return ;;
        (--level) choices=({" ".join(LEVELS)}); _describe level choices; return ;;
        ({"|".join(value_options())}) return ;;
    esac
    if (( CURRENT == 2 )); then choices=({first_words}); else
    case $words[2] in
{chr(10).join(cases)}
    esac; fi
    _describe orion choices
}}
if [[ $funcstack[1] == _orion ]]; then _orion "$@"; else compdef _orion orion; fi
"""


def _zsh_list(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(_quoted(f"{name}:{summary.replace(':', ',')}" if summary else name) for name, summary in pairs)


def _zsh_words(words: Iterable[str], names: bool) -> str:
    listed = _zsh_list((word, OPTION_SUMMARIES.get(word, "")) for word in words)
    return f"choices=({listed}{f' $({NAMES})' if names else ''})"


def fish() -> str:
    """Return fish's completions."""
    lines = [
        "# fish completion for orion; load it with: orion completion fish | source",
        f"function __orion_scripts; {NAMES}; end",
        "complete -c orion -f",
    ]
    lines += [f"complete -c orion -n __fish_use_subcommand -a {c} -d {_quoted(SUMMARIES[c])}" for c in commands()]
    for first in commands():
        seconds = " ".join(subcommands(first))
        for second in subcommands(first):
            condition = f"__fish_seen_subcommand_from {first}; and not __fish_seen_subcommand_from {seconds}"
            summary = _quoted(SUMMARIES.get(f"{first} {second}", ""))
            lines.append(f"complete -c orion -n '{condition}' -a {second} -d {summary}")
    for line in grammar_lines():
        for path in product(*line.words):
            lines.extend(_fish_branch(line, path))
    return "\n".join(lines) + "\n"


def _fish_branch(line: Line, path: Sequence[str]) -> Iterable[str]:
    condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path)
    others = [mode for mode, _ in modes(path[0]) if mode != line.mode]
    condition += "".join(f"; and not __fish_seen_argument -l {mode[2:]}" for mode in others)
    start = f"complete -c orion -n '{condition}'"
    for name, value in line.options:
        kind = {"--user": " -x -a '(__fish_complete_users)'", "--level": f" -x -a '{' '.join(LEVELS)}'"}.get(name, "")
        if name in FOLDERS:
            kind = " -x -a '(__fish_complete_directories)'"
        kind = kind or (" -x" if value else "")
        yield f"{start} -l {name[2:]}{kind} -d {_quoted(OPTION_SUMMARIES[name])}"
    if "<level>" in line.arguments:
        yield f"{start} -a '{' '.join(LEVELS)}'"
    if takes_known_script(line, path[-1]):
        yield f"{start} -a '(__orion_scripts)'"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
