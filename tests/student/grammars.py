"""What a grammar allows, by xgrammar, the library that vLLM uses."""

import xgrammar


def allows(ebnf: str, text: str) -> bool:
    """Return whether a model under this grammar could write the text."""
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(["end"], stop_token_ids=[0]))
    matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(ebnf))
    return matcher.accept_string(text) and matcher.is_completed()
