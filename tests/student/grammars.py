"""What a grammar allows, asked of the library that vLLM asks."""

import xgrammar


def allows(ebnf: str, text: str) -> bool:
    """Say whether a model could write the text."""
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(["end"], stop_token_ids=[0]))
    matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(ebnf))
    return matcher.accept_string(text) and matcher.is_completed()
