// The one file that compiles the non-template parts of Asio and Beast (see the defines of this target).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
