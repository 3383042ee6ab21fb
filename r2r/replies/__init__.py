"""How a model's reply is read: strictly, because an order guessed from a broken reply looks like a ranking.

`listwise.py` reads the free-form listwise reply; `strict.py` holds what all readers share. The formats that teacher and
student must write belong to `teacher.parse` and `student.prompt`.

    parse_order("1. [3]\\n2. [1]\\n3. [2]", 3).order == [3, 1, 2]
"""

from r2r.replies.listwise import parse_order
from r2r.replies.strict import DECODER, Parsed, Unsound, complete_order, decoded, text_field

__all__ = ["DECODER", "Parsed", "Unsound", "complete_order", "decoded", "parse_order", "text_field"]
